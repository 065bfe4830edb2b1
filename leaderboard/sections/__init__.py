"""Parts of pages as HTML: pure functions that the application and the plain files share."""
