"""What runs in the processes of a trial: from its settings and its checkpoint to results for Ray Tune.

Comes in: number, seed, values and the folder of the trial's checkpoints, the train split in Ray's object store
(shared_data). Goes out: a result and a checkpoint at each validation. Read training first, then one_worker (Ray Tune's
actor trains), worker_group (it starts a run of Ray Train, for more than one worker) and checkpoint.
"""
