-- Whether jobs can be submitted: a script that may write and has no allow-oom is refused exactly when a submission is.
return 1
