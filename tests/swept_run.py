"""Run a recipe whose trainer has swept learning rates before it trains: `python -m tests.swept_run RECIPE`."""

from typing import Any

import hindi_babylm.run

if __name__ == "__main__":
    make_trainer = hindi_babylm.run.make_trainer

    def swept(*args: Any, **kwargs: Any) -> Any:
        """Return the run's trainer after a sweep."""
        trainer = make_trainer(*args, **kwargs)
        assert len(trainer.find_learning_rate(num_steps=12)["rates"]) == 12
        return trainer

    hindi_babylm.run.make_trainer = swept
    hindi_babylm.run.main()
