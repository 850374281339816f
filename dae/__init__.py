"""The science of dae-sweep: data, corruption, model and training of denoising autoencoders."""
