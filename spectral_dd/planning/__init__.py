"""From members to a plan: what is checked and drawn, which epochs are recorded, which members share a program."""
