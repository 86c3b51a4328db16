"""Reports: the results of a sweep as one HTML file that opens offline, and as CSV."""
