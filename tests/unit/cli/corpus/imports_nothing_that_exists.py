from a_package_that_nobody_has import train

train()
