"""Published numbers as data: one CSV a paper, one line a number, each with its source and how it was read.

Published and measured numbers stand in separate columns everywhere: they come from other data, trunks and schedules.
"""
