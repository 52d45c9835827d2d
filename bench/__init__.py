"""`make bench`: the solver of LRMF side by side with its peers."""
