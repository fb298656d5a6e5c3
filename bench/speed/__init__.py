"""How fast imm is, each time beside the floor: what does the same by hand and leaves out all that it can.

Floor and imm take turns in one run, so that what slows the machine down slows both. What counts is the
ratio of their medians; seconds alone say more about the machine. `make bench` prints the table and writes
every sample.
"""
