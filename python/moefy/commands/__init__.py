"""What the commands of the package are called and which options they have, one file each. Nothing here
imports PyTorch, which takes seconds: help pages and mistakes do not wait for it."""
