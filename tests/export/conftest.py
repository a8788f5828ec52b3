from tests.train_fixtures import trained_run

__all__ = ["trained_run"]
