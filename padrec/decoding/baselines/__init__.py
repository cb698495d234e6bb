"""What transformers offers, as arms of a comparison."""
