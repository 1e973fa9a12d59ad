"""Ways of acting: prompts, tokens, log-probabilities."""

if __name__ != "agentgym.policies":
    raise ImportError(f"import this package as agentgym.policies, not as {__name__}")
