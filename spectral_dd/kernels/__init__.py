"""How convolutions, norms and max-pools are computed. Which networks use them is said in `models/`."""
