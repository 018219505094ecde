"""``cleanclose explain``: who probably caused the resets in a log, how sure that is, and why.

Lines become entries (:mod:`.entries`), an entry gets at most one kind (:mod:`.rules`, from the
table in :mod:`.kinds`), and :mod:`.tally` counts the kinds over time. No more than one entry of a
log is in memory at a time, and nothing leaves the machine.
"""
