"""Methods compared at equal budgets of passes: who takes part, their maps from shared passes, and how they stand."""
