"""What to run: the sweep file, Hydra's presets, cells, the plan. Pure functions."""
