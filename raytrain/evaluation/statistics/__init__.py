"""Paired statistics: pure functions of arrays, scipy underneath. Each names the source of its formula."""
