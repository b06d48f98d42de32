"""Records of races: what was planned and what each run gave, in SQLite or PostgreSQL.

A store holds one race.  Every run is a row from the moment it ends; a race that was killed continues from its rows.
"""

from thalweg.store.claim import claim
from thalweg.store.database import Store, read
from thalweg.store.errors import StoreError
from thalweg.store.records import Curve, EntryPlan, Phase, Plan, ProblemPlan, Results, Run, Space, Status

__all__ = [
    "Curve",
    "EntryPlan",
    "Phase",
    "Plan",
    "ProblemPlan",
    "Results",
    "Run",
    "Space",
    "Status",
    "Store",
    "StoreError",
    "claim",
    "read",
]
