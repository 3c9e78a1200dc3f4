"""The QC report: pictures and facts of volumes, and the page that shows them."""
