"""The training loop, the learner, and one file a method."""

if __name__ != "agentgym.trainers":
    raise ImportError(f"import this package as agentgym.trainers, not as {__name__}")
