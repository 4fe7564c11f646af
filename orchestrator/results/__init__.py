"""What came of a sweep: data frames, statistics, tables, figures, the report, measuring again."""
