"""What each chapter's exercises ask, for utils.checks: references, inputs, slips."""
