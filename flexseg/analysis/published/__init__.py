"""Published numbers as data: one CSV a source, one line a number, each with its source and how it was read.

``reference`` is the paper, ``evidence`` where the number was read: its own table, or one that quotes it, or public
notes of it. ``trunk`` says decoder and trunk as far as that source or the public code does; one method under one name
and trunk has one number a target over all files that a benchmark names together.

Published and measured numbers stand in separate columns everywhere: they come from other data, trunks and schedules.
"""
