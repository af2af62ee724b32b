from pipelines.tuning.report.conclusion import conclusion
from tests.pipelines.tuning.ledgers import METRIC, campaign, grid_ledger, seeds, trial


def test_the_conclusion_begins_with_the_winner_and_ends_with_the_effort() -> None:
    said = conclusion(grid_ledger(), METRIC, campaign())
    assert said[0].startswith("The best of 17 points is model.interests=4, model.iterations=3: ndcg@20 0.12")
    assert said[1].startswith("The runner-up, model.interests=4, model.iterations=4, has 0.12")
    assert said[2].startswith(
        "The best point of each model.interests: 1 with 0.0797 (-11.4 %, stopped after 2 epochs, the winner had "
        "0.0900);"
    )
    assert said[-1].startswith("17 trainings took 78 epochs, 13.0 minutes; stopping 15 of them early saved at most 194")


def test_the_conclusion_names_what_cannot_be_told_from_the_winner() -> None:
    records = seeds(1, 0.300, 0.304) + seeds(2, 0.299, 0.303, first=3) + seeds(3, 0.1, 0.1001, first=5)
    said = conclusion(records, METRIC, campaign())
    assert any("Of 2 other points with several seeds, 1 cannot be told" in line and "=2" in line for line in said)


def test_the_conclusion_tells_of_better_points_that_were_stopped() -> None:
    said = conclusion([trial(1, [0.3], status="stopped"), trial(2, [0.2])], METRIC, campaign())
    assert "1 point stopped early had a better metric and could not win: point 1." in said


def test_the_conclusion_says_what_the_cheapest_gives_up() -> None:
    finish = {"choose": "cheapest_within", "tolerance": 0.1}
    said = conclusion([trial(1, [0.95]), trial(2, [1.0])], METRIC, campaign(finish=finish))
    assert said[0].startswith("The cheapest of 2 points within 10.0% of the best is model.interests=1: ndcg@20 0.9500")
    assert "the best has 1.0000" in said[0]


def test_the_conclusion_of_failures_alone() -> None:
    assert conclusion([trial(1, [], status="failed")], METRIC, campaign()) == [
        "No training came to a validation: 1 training failed."
    ]


def test_the_conclusion_of_one_training_each_claims_no_difference() -> None:
    said = conclusion([trial(1, [0.2]), trial(2, [0.1])], METRIC, campaign())
    assert "With one training each, these differences cannot be told from the noise between seeds." in said


def test_the_conclusion_names_one_epoch_in_the_singular() -> None:
    said = conclusion([trial(1, [0.2])], METRIC, campaign())
    assert said[0].endswith(", after 1 epoch.")
