"""``cleanclose explain``: whose the resets in a log were likely to be, how sure that is, and why.

Lines become entries (:mod:`.entries`), an entry gets at most one kind (:mod:`.rules`, from the
table in :mod:`.kinds`), and kinds are counted over time (:mod:`.tally`). Nothing here keeps more
of a log than one entry, and nothing leaves the machine.
"""
