if __name__ != "paceline.runtime":
    raise ImportError("import paceline.runtime: the bare folder would be a second copy with a second registry")

from . import faults, memory, world

# The command is no rank. It says in one line what is wrong with the environment, and `paceline doctor` has to run then.
if not world.is_command():
    # Here and not later: NumPy's BLAS reads its thread count while it is loaded, and a rank that fails
    # before it makes a communicator must end the job as well.
    world.set_thread_counts(world.get_world())
    world.let_waiting_threads_sleep()
    faults.install(world.get_world())
    memory.keep_freed()
