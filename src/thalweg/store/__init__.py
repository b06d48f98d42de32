"""Records of races: what was planned and what each run gave, in SQLite or PostgreSQL.

A store holds one race, or many under their names.  Every run is a row from the moment it ends; a race that was killed
continues from its rows.  Before that, its points are there as it streams them.
"""

from thalweg.store.database import Store
from thalweg.store.errors import NoRace, StoreError, StoreWarning
from thalweg.store.places import Place
from thalweg.store.reading import Held, Reader, locate, read
from thalweg.store.records import Curve, EntryPlan, Phase, Plan, Points, ProblemPlan, Results, Run, Space, Status
from thalweg.store.tables import race_name

__all__ = [
    "Curve",
    "EntryPlan",
    "Held",
    "NoRace",
    "Phase",
    "Place",
    "Plan",
    "Points",
    "ProblemPlan",
    "Reader",
    "Results",
    "Run",
    "Space",
    "Status",
    "Store",
    "StoreError",
    "StoreWarning",
    "locate",
    "race_name",
    "read",
]
