"""``python -m agentgym`` is the ``agentgym`` command."""

from agentgym.cli import main

if __name__ == "__main__":
    main()
