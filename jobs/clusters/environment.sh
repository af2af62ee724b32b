# To be sourced on a node before any `ray` command: what its raylet, and so every task and job on it, finds in the
# environment. cluster.env is the site's own file (cluster.env.example); it may hold secrets, so only its owner reads it.
chmod 600 ~/.mind/cluster.env ~/.ray/auth_token || return
set -o allexport
. ~/.mind/cluster.env
RAY_AUTH_MODE=token # said everywhere: unset, `ray start` goes by whether a token happens to lie on the machine
RAY_AUTH_TOKEN_PATH=~/.ray/auth_token
RAY_USAGE_STATS_ENABLED=0
PATH=~/mind-venv/bin:$PATH
set +o allexport
ulimit -Sn "$(ulimit -Hn)" # a head holds some connections for each worker process of the cluster
