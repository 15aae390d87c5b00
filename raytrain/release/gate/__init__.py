"""What must be shown before a version may be used: rules, evidence, approvals, and the record of what was decided."""
