"""The leaderboard: a folder of entries, each a run that was scored under one protocol and can be checked again.

entry.py       what an entry is: its files, its id; read with every field checked, written all at once
submit.py      a run folder becomes an entry
verify.py      plays the evaluation of an entry again
merge.py       the entries of several boards in one
rank.py        entries become rows: one for each setting, ranked over its seeds
references.py  published scores, shown beside the rows and never ranked against them
page.py        the pages, for `export` and for serve.py
"""
