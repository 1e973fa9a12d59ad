"""Text environments behind one Gymnasium contract; importing this registers them with Gymnasium."""

if __name__ != "agentgym.envs":
    raise ImportError(f"import this package as agentgym.envs, not as {__name__}")

from agentgym.envs.registry import register_with_gymnasium

register_with_gymnasium()
