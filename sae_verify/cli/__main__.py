"""`python -m sae_verify.cli`."""

from sae_verify.cli import main

if __name__ == "__main__":
    main()
