"""The mathematics of transport: ground costs, the map of a potential, images as graphs and histograms, gradients."""
