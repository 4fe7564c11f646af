"""The mathematics of transport: ground costs, transport maps, images as graphs and as histograms, gradients."""
