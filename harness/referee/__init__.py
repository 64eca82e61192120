"""The checks of a certificate: whether a score could have been had by looking ahead."""
