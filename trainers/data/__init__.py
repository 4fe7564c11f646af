"""The sources of images, their arrays on disk, and the minibatches taken from them."""
