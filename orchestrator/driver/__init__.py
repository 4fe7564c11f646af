"""One sweep from plan to table: what is to run, its signals, the mirror's thread, Ray in the middle."""
