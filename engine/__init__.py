"""The race itself: clock, ledger, referee, racer and judge. Imports nothing else of Timetrial."""
