"""xarray.Dataset -> figures and report.html. What a curve means is defined in `analysis`; here it is drawn."""

from spectral_dd.report.page import draw_report

__all__ = ["draw_report"]
