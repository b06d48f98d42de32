"""A page that follows races while they run; it reads their stores, and never writes."""

from thalweg.watch.following import Follower
from thalweg.watch.server import Server
from thalweg.watch.stores import Stores

__all__ = ["Follower", "Server", "Stores"]
