"""Results from elsewhere: bundles, whether they hold, and adding them to ours."""
