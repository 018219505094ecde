"""Whatever can happen, in any order: ``make fuzz``."""
