"""The delivery side: claims, delivers, settles, promotes."""
