"""Fused operators for the fixed side of the benchmark; a file per operation. Imports nothing else of Timetrial."""
