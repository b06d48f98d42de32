"""Scripted faults in races: what was reported finished is kept, nothing counts twice, verdicts are as undisturbed.

``make soak`` runs 200 of them, in races on SQLite, PostgreSQL and Ray; the tests run a few.
"""
