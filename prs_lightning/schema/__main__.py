"""python -m prs_lightning.schema > docs/config.md: the table of all keys."""

from prs_lightning.schema.page import page

if __name__ == "__main__":
    print(page(), end="")
