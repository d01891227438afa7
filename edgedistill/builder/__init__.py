"""The builder: from a Job to a Report.

driver      the straight line, in one sitting
prepare     read rows and models, match labels: the facts for the planner
course      a build under way, and the one way to run steps
teacher     the teacher held against its own rows before anything is distilled
contest     which students are trained, in which order
figures     rows measured and judged
narrate     what each step is for, in one line
"""
