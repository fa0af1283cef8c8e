"""What the recorded curves and spectra say, as numbers and as sentences. Nothing here draws, trains or reads files."""
