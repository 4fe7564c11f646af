"""Where images come from, how they lie in memory, and how minibatches are taken of them."""
