"""The driver that Python calls has the tracking store in its own process."""

import pytest

# raised inside mlflow, SQLAlchemy and alembic
THEIRS = (
    "DeprecationWarning",
    "FutureWarning",
    "UserWarning",
    "ResourceWarning",
    "pytest.PytestUnraisableExceptionWarning",
)


def pytest_itemcollected(item):
    for kind in THEIRS:
        item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
